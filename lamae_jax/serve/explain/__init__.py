"""What a model looks at and what it withstands: a page over a cohort of labelled records, or over one record."""
