"""What HTTP needs and does not know of the server: forms, options, JSON, ZIP, the page."""
