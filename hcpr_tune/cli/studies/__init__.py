"""Commands about studies that exist: a module each."""
