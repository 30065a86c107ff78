"""Video sources: lists, downloads, licences, enrolment."""
