"""What HTTP needs and does not know of the server: forms, options, answers as JSON, ZIP, the page."""
