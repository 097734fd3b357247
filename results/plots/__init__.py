"""Pictures of a sweep: pure functions from a table to a plotly figure; `table` names all of them."""
