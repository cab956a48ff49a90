"""From the curves of a study to arrays, a picture, a table, a sentence and one HTML page."""
