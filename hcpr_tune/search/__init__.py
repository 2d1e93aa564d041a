"""The service: what a study is, who trains what next, and the record that everything is rebuilt from."""
