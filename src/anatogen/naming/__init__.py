"""What the names of cases tell: which of them are scans of one patient. Names in, patients out."""
