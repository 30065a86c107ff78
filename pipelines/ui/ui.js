() => document.addEventListener("keydown", (event) => {
  const id = { p: "previous", r: "right", w: "wrong", u: "unmark", n: "next" }[event.key];
  const button = id && document.getElementById(`pair-${id}`);
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (button?.offsetParent && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) button.click();
})
