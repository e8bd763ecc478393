"""Reports: results in, pages, tables, figures and cards out. Measures nothing."""
