"""Tables of results: build them from the tidy frame; render as text, Markdown, LaTeX and CSV."""
