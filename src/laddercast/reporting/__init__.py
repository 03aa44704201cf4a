"""The report: one HTML file of a forecast, with what to doubt in it."""
