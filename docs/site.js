// What scrolls sideways can be reached, and scrolled, by the keyboard
function reachable() {
  for (const x of document.querySelectorAll("article pre, article div.math, article table, .cell_output, .table-wrapper")) {
    if (x.scrollWidth > x.clientWidth || x.scrollHeight > x.clientHeight + 1) x.tabIndex = 0;
    else x.removeAttribute("tabindex");
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
