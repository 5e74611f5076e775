"""What a run looks like: its report as one HTML file, its pictures, and a federation beside its alternatives."""
