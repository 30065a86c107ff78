"""What `a2data sample` is made of: jobs, what is written, and the crew of a cluster."""
