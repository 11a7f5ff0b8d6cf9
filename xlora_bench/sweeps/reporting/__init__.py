"""Progress lines of a sweep and its report at the end."""
