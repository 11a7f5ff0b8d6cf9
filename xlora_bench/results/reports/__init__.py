"""Reports: files with tables, figures, comparison and tuning trials."""
