"""One file a resource of docs/labelmelite-api.md; each exports its `ROUTES`."""
