"""What the pages that can be sent around are made of: their look, their script, and how sections and pictures become one file."""
