"""What HTTP needs and does not know of the server.

    uploads    bodies and forms as they come in, bounded
    options    text in a query or form -> requests of `unface.v1`; `values` reads the text
    answers    answers of `unface.v1` -> JSON
    responses  answers on their way out
    archives   ZIPs that are sent while they are made
    names      file names that strangers sent, made fit to be saved under
    problems   what only HTTP can do wrong
    manual     the OpenAPI document's words; `docs_page` shows it
    pages      the page's files, which are in page/

Here no picture is looked at: it is bytes that came and go.
"""
