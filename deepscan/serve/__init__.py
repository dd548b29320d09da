"""`deepscan serve`: a web page on this machine that takes clips and shows their reports.

Uploaded clips come in. Reports go out, and are deleted after a while. Only the command line may import
this package, module by module, because `app` and `server` need the extra "serve".
"""
