"""What tests of the API and of the page share: a small application behind them, and a browser in front."""
