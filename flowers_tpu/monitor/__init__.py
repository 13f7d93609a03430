"""Who watches a run; an error here is a warning."""
