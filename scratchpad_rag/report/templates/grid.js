// Counts the failures that the radio buttons leave; the style sheet filters them without this.
const form = document.querySelector(".filters");
if (form) {
  const all = [...document.querySelectorAll(".failure")];
  const tell = () => {
    const left = all.filter((one) => getComputedStyle(one).display !== "none").length;
    form.querySelector("output").textContent = `${left} of ${all.length} shown`;
  };
  form.addEventListener("change", tell);
  form.addEventListener("submit", (event) => event.preventDefault());
  tell();
}
