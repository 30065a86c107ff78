"""HTML pages: single files that work offline, from one base template."""
