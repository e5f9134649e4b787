"""The look of calls wherever they are shown: words, marks, colours, and HTML for notebooks."""
