"""Style, script and skeleton of the self-contained HTML pages."""
