"""What can be told of all clients' rows together: counts, frequent categories, histograms."""
