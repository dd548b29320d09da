"""Checks earlier results and this machine.

A folder of results, or nothing, comes in. Findings go out: do hashes and scores still agree (`verify`),
does deepscan compute what it should here (`doctor`)? Only the command line and the tools may import
this package, module by module; `sample` makes the clip that the demonstration and the self-test use.
"""
