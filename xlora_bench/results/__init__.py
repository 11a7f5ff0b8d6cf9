"""Results: records as a data frame, protocols, statistics, comparison, tables, figures, reports, reproduction."""
