"""LabelMeLite: people answer the loop's questions and draw masks in the browser; usable without the loop."""
