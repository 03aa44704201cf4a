"""What forecasts are worth: scores, backtests, noise, and ladders whose truth is known."""
