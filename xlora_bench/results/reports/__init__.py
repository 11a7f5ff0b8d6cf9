"""The files of a report: tables, figures, comparison, tuning trials."""
