"""What runs leave behind: identity, record, tidy frame, statistics, tables, figures, a sweep's report."""
