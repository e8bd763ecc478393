"""The sections of the report, what they need, and the function that runs them over sample sets."""
