"""`deepscan serve`: a page on this machine to drop clips on, watch their progress, and read their reports."""
