// − and + of a number; the field stays a field that takes typing. Dispatches `change` on the input.
function limits(input) { return [Number(input.min || 0), Number(input.max || Infinity)]; }

/** Set `disabled` of both buttons from the value; call it after changing min, max or value by script. */
export function settle(stepper) {
  const input = stepper.querySelector("input"), [least, most] = limits(input), value = Number(input.value);
  stepper.querySelector('[data-step="-1"]').disabled = !(value > least);
  stepper.querySelector('[data-step="1"]').disabled = !(value < most);
}

export function startSteppers() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-stepper] [data-step]");
    if (!button) return;
    const stepper = button.closest("[data-stepper]"), input = stepper.querySelector("input"), [least, most] = limits(input);
    input.value = Math.min(most, Math.max(least, (Number(input.value) || 0) + Number(button.dataset.step)));
    settle(stepper);
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
  document.addEventListener("change", (event) => {
    const stepper = event.target.closest?.("[data-stepper]");
    if (!stepper) return;
    const input = stepper.querySelector("input"), [least, most] = limits(input);
    const value = Math.round(Number(input.value));
    input.value = Math.min(most, Math.max(least, Number.isFinite(value) ? value : least));
    settle(stepper);
  }, true);
}
