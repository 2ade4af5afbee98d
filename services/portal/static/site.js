// The preview of the home page: shown once it was asked for, its frame is watched like any other.
document.body.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-site-home]") || event.submitter?.hasAttribute("hx-post")) return;
  const box = document.querySelector("[data-site-preview]");
  box.hidden = false;
  box.scrollIntoView({ behavior: "smooth", block: "nearest" });
});
