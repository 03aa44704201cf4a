"""From fits to forecasts: of targets, pools of routes, averages and grids."""
