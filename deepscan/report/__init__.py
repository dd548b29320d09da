"""Makes a `Report` visible: JSON, the HTML page, heatmaps and the overlay film.

A `Report` and the frames scored for it come in. Files in one folder go out, listed with their hashes in
manifest.json. The pipeline and every package above it may import this one, module by module: `json`,
`page`, `pictures`, `overlays`, `provenance`.
"""
