// Somebody else changed the open dataset: ask for it anew. Shows nothing. Runs inside gr.HTML.
watch("value", () => trigger("refresh"));
