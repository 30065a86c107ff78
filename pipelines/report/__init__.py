"""The report and the audit page of a work folder."""
