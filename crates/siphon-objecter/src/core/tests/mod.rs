mod budgets;
mod history;
mod lasting;
mod lying;
mod single;
mod world;
