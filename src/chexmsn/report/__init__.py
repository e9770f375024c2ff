"""Tables, figures and one HTML file, from result folders alone."""
