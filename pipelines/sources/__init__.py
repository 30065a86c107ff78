"""Where the videos come from: lists, downloads, licences, enrolment."""
