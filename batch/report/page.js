// The check list: two buttons a question, the pass rate as it is filled in, and its file.
"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const answers = Object.fromEntries(Object.entries(facts.cases).map(([name, entry]) => [name, { ...entry.answers }]));
let isSaved = true;

const isJudged = (name) => facts.questions.every((question) => question in answers[name]);
const isPassed = (name) =>
  !facts.failed.includes(name) && facts.questions.every((question) => answers[name][question] === true);

function show() {
  for (const list of document.querySelectorAll(".checks")) {
    const name = list.dataset.case;
    for (const field of list.querySelectorAll("fieldset")) {
      for (const button of field.querySelectorAll("button")) {
        const said = answers[name][field.dataset.question];
        button.setAttribute("aria-pressed", String(said === (button.value === "yes")));
      }
    }
    const result = list.querySelector(".result");
    result.textContent = !isJudged(name) ? "" : isPassed(name) ? "passed" : "not passed";
    result.dataset.passed = !isJudged(name) ? "" : isPassed(name) ? "yes" : "no";
  }
  const rate = document.getElementById("rate");
  if (!rate) {
    return;
  }
  const names = facts.counted.filter((name) => !facts.failed.includes(name));
  const judged = names.filter(isJudged);
  const passed = judged.filter(isPassed).length;
  const decided = judged.length + facts.failed.length;
  const share = `: ${Math.round((100 * passed) / decided)}%`;
  const left = [`${names.length - judged.length} to judge`];
  if (facts.failed.length) {
    left.push(`${facts.failed.length} INVALID or not scored`);
  }
  rate.textContent =
    judged.length || !names.length
      ? `${passed} of ${decided} judged cases passed${share} (${left.join(", ")})`
      : `${names.length} ${names.length === 1 ? "case" : "cases"} to judge: watch each video, then answer four questions`;
}

function answer(button) {
  const given = answers[button.closest(".checks").dataset.case];
  const question = button.closest("fieldset").dataset.question;
  const said = button.value === "yes";
  if (given[question] === said) {
    delete given[question]; // a second click takes the answer back
  } else {
    given[question] = said;
  }
  isSaved = false;
  show();
}

function save() {
  const cases = Object.fromEntries(
    Object.entries(answers).map(([name, given]) => [name, { sha256: facts.cases[name].sha256, answers: given }]),
  );
  const content = JSON.stringify({ format: "svi check list 1", cases }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = "check_list.json";
  link.click();
  URL.revokeObjectURL(link.href);
  isSaved = true;
}

for (const button of document.querySelectorAll(".checks button")) {
  button.addEventListener("click", () => answer(button));
}
document.getElementById("save")?.addEventListener("click", save);
window.addEventListener("beforeunload", (event) => {
  if (!isSaved) {
    event.preventDefault();
  }
});
show();
