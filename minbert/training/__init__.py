"""One configuration trained, evaluated, saved, and used to predict."""
