"""The data contract: tables, columns, units, references and quality. Everything that names a column derives from here."""
