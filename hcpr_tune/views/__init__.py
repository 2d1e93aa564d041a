"""What people look at. A view listens to the record and never decides anything."""
