"""The sections of a report: each takes the images block by block, then says what it found in numbers and pictures."""
