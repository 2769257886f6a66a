"use strict";

// The search runs in a worker made from a blob, which the page's policy forbids.
Redoc.init("/openapi.json", { disableSearch: true }, document.getElementById("page"));
