"""What a person looks at: pictures and tables about results. Reads tables; makes no new data."""
